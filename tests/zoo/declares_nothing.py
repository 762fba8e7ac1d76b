import volano as vo

VERSION = vo.__version__
