from datetime import datetime
from typing import Annotated

import volano as vo
from healthy import ops, plane


class PlaneInfo(vo.Event, id="tailnum"):
    tailnum: Annotated[str, plane]
    maker: str
    retired_at: datetime
    seen_at: vo.EventTime


planes = vo.Source("planes", PlaneInfo, table="planes.parquet", available_after="1d", change="slow_changing", owner=ops)
dumps = vo.Source("dumps", PlaneInfo, stream=True, accept_late="1d", change="snapshots", owner=ops)
ended = vo.Source("ended", PlaneInfo, table="x.csv", available_after="1d", valid_to="retired_at", owner=ops)
never = vo.Source(
    "never", PlaneInfo, table="x.csv", available_after="1d", change="slowly_changing", valid_to="retired_at", owner=ops
)
misspelt = vo.Source(
    "misspelt", PlaneInfo, table="x.csv", available_after="1d", change="slowly_changing", valid_to="retired", owner=ops
)
