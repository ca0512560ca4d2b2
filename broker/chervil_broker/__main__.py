"""`python -m chervil_broker`: the broker alone, without the other verbs."""

from chervil_broker.cli import broker

if __name__ == "__main__":
    broker(prog_name="python -m chervil_broker")
