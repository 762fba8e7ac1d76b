import sys

import volano as vo

ops = vo.Owner("ops", contact="ops@example.org")
sys.exit(0)
