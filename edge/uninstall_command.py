"""`fer-edge uninstall`: stop the services and leave nothing of them."""

from collections.abc import Sequence

from contract.command import Parser
from contract.errors import UserError
from edge.install_command import add_root_flags, layout_of
from edge.install_services import Services
from firmware_config.install_files import leftovers, take_away


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError`."""
    parser = Parser(
        prog="fer-edge uninstall",
        description="Stop the services and remove everything that was installed or written: "
        "versions, bundles, profiles, session logs, caches.",
    )
    add_root_flags(parser)
    given = parser.parse_args(arguments)
    layout = layout_of(given.root, dry_run=given.dry_run)
    if not layout.home.is_dir():
        raise UserError(f"{layout.home}: nothing is installed there")
    if given.dry_run:
        for path in leftovers(layout):
            print(f"remove {path}")
        return 0
    services = Services() if layout.is_this_machine else None
    with layout.changing():
        if services is not None:
            services.end()
        gone = leftovers(layout)
        take_away(layout, gone)
    for path in gone:
        print(f"removed {path}")
    if services is not None:
        services.reload()
    return 0
