import volano as vo
from healthy import Landing, ops

pushed = vo.Source("pushed", Landing, stream=True, owner=ops)
read = vo.Source("read", Landing, table="landings.parquet", owner=ops)
