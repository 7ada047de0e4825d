"""The answer to a question in SQL, as it goes through the socket of a pipeline."""

from __future__ import annotations

import base64
import io
from typing import Any

import pyarrow as pa

from cdc.target import QueryAnswer

LONGEST_QUESTION = 30.0  # seconds: nothing is applied meanwhile


def written(answer: QueryAnswer) -> dict[str, Any]:
    """As JSON."""
    content = io.BytesIO()
    with pa.ipc.new_stream(content, answer.rows.schema) as stream:
        stream.write_table(answer.rows)
    return {"arrow": base64.b64encode(content.getvalue()).decode(), "types": answer.types, "is_cut": answer.is_cut}


def read(values: dict[str, Any]) -> QueryAnswer:
    """From JSON."""
    rows = pa.ipc.open_stream(base64.b64decode(values["arrow"])).read_all()
    return QueryAnswer(rows, values["types"], values["is_cut"])
