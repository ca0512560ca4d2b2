import io
import json
import logging

from chervil.logformat import line_handler


def logged(log_format, *arguments, **more):
    stream = io.StringIO()
    logger = logging.getLogger("chervil.test")
    logger.propagate = False
    logger.handlers[:] = [line_handler(log_format, stream)]
    logger.warning(*arguments, **more)
    return stream.getvalue()


def test_text_lines_hold_time_level_logger_and_message():
    line = logged("text", "%s is late", "tea")
    assert line.endswith("WARNING chervil.test  tea is late\n")


def test_a_line_break_in_a_name_makes_no_line_of_its_own():
    line = logged("text", "%s is late", "tea\n2026-01-01 ERROR forged\x1b[31m")
    assert line.count("\n") == 1
    assert "tea\\n2026-01-01 ERROR forged\\x1b[31m is late" in line


def test_json_lines_are_one_object_with_what_extra_gave():
    line = json.loads(logged("json", "%s is late", "tea", extra={"minutes": 5}))
    assert line["message"] == "tea is late"
    assert line["level"] == "WARNING"
    assert line["logger"] == "chervil.test"
    assert line["minutes"] == 5
    assert line["time"].endswith("Z")
    assert "args" not in line


def test_json_lines_carry_a_traceback():
    try:
        raise KeyError("cup")
    except KeyError:
        line = json.loads(logged("json", "broken", exc_info=True))
    assert "KeyError: 'cup'" in line["traceback"]
