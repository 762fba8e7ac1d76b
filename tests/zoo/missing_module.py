import volano as vo
from airline_tools import contacts

ops = vo.Owner("ops", contact=contacts.ops)
