"""HTTP: decisions out, observations in. Plain ASGI; holds no rule of its own."""
