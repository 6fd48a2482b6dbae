"""The HTTP server: routes, the WSGI server, the queue, start-up, the overlay."""
