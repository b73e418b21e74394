"""The HTTP service and its page (extra ``serve``): see :mod:`facemtl.serve.app`, and docs/serve.md for the protocol."""
