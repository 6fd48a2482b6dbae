"""The HTTP server: routes, WSGI server, queue, start-up and overlay."""
