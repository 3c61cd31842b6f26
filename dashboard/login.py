"""Logging in and out."""

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from dashboard.auth import Guard
from dashboard.openapi import documented


def login_routes(guard: Guard) -> Blueprint:
    """The form, what it posts, and the way out."""
    routes = Blueprint("login", __name__)

    @routes.get("/login")
    @documented(content="text/html", statuses=(200, 302))
    def login() -> ResponseReturnValue:
        """The login form; leads to the page where no login is needed."""
        if not guard.needs_login:
            return redirect(url_for("dashboard.index"))
        return render_template("login.html", password=guard.access.login.password_hash is not None)

    @routes.post("/login")
    @documented(form={"token": "the token, or the password"}, statuses=(204,))
    def log_in() -> ResponseReturnValue:
        """Log in: the form field `token` is the token or the password. Sets a cookie."""
        if guard.needs_login:
            guard.log_in(request.form.get("token", ""))
        return "", 204

    @routes.post("/logout")
    @documented(statuses=(204,))
    def log_out() -> ResponseReturnValue:
        """End the login of the cookie that comes with this request."""
        guard.log_out()
        return "", 204

    return routes
