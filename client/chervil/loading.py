"""Finding the app that a command line names."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from chervil.app import Chervil
from chervil.exceptions import AppNotFound

#: Attributes that hold the app where none is named, in the order they are tried.
ATTRIBUTES = ("app", "celery")
#: Submodules of a package that are tried when the package itself has no app.
SUBMODULES = ("celery", "app", "tasks")


def find_app(spec: str, workdir: Path) -> Chervil:
    """The app of `module` or `module:attribute`, with `workdir` first on `sys.path`.

    Without an attribute: `app`, `celery`, or the only Chervil instance of the module; then the same in the
    submodules `celery`, `app` and `tasks` of a package. Raises AppNotFound, whose message says what to
    type; where importing the user's module failed, that exception is its `__cause__`.
    """
    folder = str(workdir.absolute())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name, _, attribute = spec.partition(":")
    name = _module_name(name, workdir)
    module = _load(name, workdir)
    if attribute:
        return _named(module, attribute)
    tried = [module.__name__]
    app = _only(module)
    if app is None and hasattr(module, "__path__"):
        for suffix in SUBMODULES:
            submodule = f"{name}.{suffix}"
            if find_spec(submodule) is not None:
                tried.append(submodule)
                app = _only(_load(submodule, workdir))
                if app is not None:
                    break
    if app is None:
        raise AppNotFound(
            f"no Chervil app in {', '.join(tried)}; make one there (app = Chervil({name!r})), "
            "or name it: -A MODULE:ATTRIBUTE"
        )
    return app


def _module_name(name: str, workdir: Path) -> str:
    """The module that was meant by what people type: a file's path will do."""
    if name.endswith(".py"):
        name = name.removesuffix(".py").removeprefix("./").replace("/", ".")
    if not name or not all(part.isidentifier() for part in name.split(".")):
        raise AppNotFound(f"{name!r} is no module's name; type -A MODULE or -A MODULE:ATTRIBUTE")
    return name


def _load(name: str, workdir: Path) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        # Either what was asked for is not there, or it is and imports something that is not.
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise AppNotFound(
                f"no module {error.name!r} in {workdir.absolute()} or on Python's path; "
                "type -A with the name of the module that makes the app, or --workdir with its folder"
            ) from None
        raise AppNotFound(f"{name} cannot be imported: {error}") from error
    except Exception as error:
        raise AppNotFound(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


def _named(module: ModuleType, attribute: str) -> Chervil:
    found: object = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if isinstance(found, Chervil):
        return found
    apps = ", ".join(f"{module.__name__}:{name}" for name in _apps(module))
    hint = f"there is {apps}" if apps else "there is none in that module"
    raise AppNotFound(f"{module.__name__}:{attribute} is no Chervil app; {hint}")


def _only(module: ModuleType) -> Chervil | None:
    for attribute in ATTRIBUTES:
        found = getattr(module, attribute, None)
        if isinstance(found, Chervil):
            return found
    apps = _apps(module)
    if len({id(app) for app in apps.values()}) > 1:
        names = " or ".join(f"-A {module.__name__}:{name}" for name in apps)
        raise AppNotFound(f"{module.__name__} has {len(apps)} apps; say which: {names}")
    return next(iter(apps.values()), None)


def _apps(module: ModuleType) -> dict[str, Chervil]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Chervil)}
