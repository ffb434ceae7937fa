"""What every HTTP exchange passes through, from the outside in: `RequestIds`, CORS, `ApiKeys`, `Bodies`."""
