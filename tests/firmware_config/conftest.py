"""What the tests of what surrounds the program share."""

import pytest

from tests.firmware_config.mcu_program import McuProgram, build, compiler


@pytest.fixture(scope="session")
def mcu_program(tmp_path_factory: pytest.TempPathFactory) -> McuProgram:
    """The microcontroller's C code, compiled for this machine."""
    if compiler() is None:
        pytest.skip("there is no C compiler here: apt-get install gcc libc6-dev")
    return build(tmp_path_factory.mktemp("mcu"))
