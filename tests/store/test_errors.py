"""What a log says of the database's errors."""

import sqlite3

from sqlalchemy.exc import OperationalError, ProgrammingError

from keyreel.store.errors import described


def test_an_outage_is_one_line_because_it_repeats_itself() -> None:
    refused = ConnectionRefusedError(111, "Connect call failed")
    assert described(refused) == {"reason": "[Errno 111] Connect call failed"}
    assert described(TimeoutError()) == {"reason": "TimeoutError"}
    locked = OperationalError("UPDATE request SET prompt = 'secret'", None, sqlite3.OperationalError("locked\nhint"))
    assert described(locked) == {"reason": "locked"}


def test_a_fault_of_our_own_has_its_traceback() -> None:
    fault = ProgrammingError("SELECT nothing", None, sqlite3.OperationalError("no such column: nothing"))
    assert described(fault) == {"reason": "no such column: nothing", "exc_info": fault}
