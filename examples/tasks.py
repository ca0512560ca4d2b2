"""The smallest app. In this folder, run

    chervil -A tasks dev                             broker and worker, until Ctrl-C

and in another terminal, in the same folder

    chervil -A tasks call tasks.add 2 3 --wait       prints 5
"""

from chervil import Chervil

app = Chervil("tasks")


@app.task
def add(x: int, y: int) -> int:
    return x + y


if __name__ == "__main__":  # python tasks.py: the same from a program
    print(add.delay(2, 3).get(timeout=10))
