import volano as vo
from healthy import Landing, ops

read = vo.Source("read", Landing, table="x.parquet", known_at="landed", owner=ops)
again = vo.Source(
    "again", Landing, table="x.parquet", known_at="carrier", available_after="5m", owner=ops
)
