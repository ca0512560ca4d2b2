"""How the benchmarks name the machine and write figures."""

import platform


def machine() -> str:
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"


def show(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}"
