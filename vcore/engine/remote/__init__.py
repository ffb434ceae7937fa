"""The engine in a process of its own: what crosses to it and back, its loop, and its life.

    asyncio thread                                             engine process (``python -m vcore.engine.remote``)

    Supervisor -- ProcessLink -- ChildProcess ---- stdin: StartOptions, then open as long as the parent lives
                       |                      \\--- stdout and stderr: the log, copied to our stderr
                       `- ZMQ socket <--- messages ---> ZMQ socket -- EngineLoop -- EngineCore

Run in the same process instead, for debugging, the same loop gets the same messages through queues:
`ThreadLink` stands in `ProcessLink`'s place.
"""
