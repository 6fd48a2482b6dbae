"""The HTTP server: routes, WSGI server, queue and start-up."""
