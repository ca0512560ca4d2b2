"""The broker's engine: commands and clocks go in, effects come out. No I/O, no clock, no chance."""

from chervil_broker.engine.effects import Effects
from chervil_broker.engine.engine import Engine
from chervil_broker.engine.state import EngineConfig
from chervil_broker.engine.task import Task, View

__all__ = ["Effects", "Engine", "EngineConfig", "Task", "View"]
