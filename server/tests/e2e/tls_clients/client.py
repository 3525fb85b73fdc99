"""Asks in TLS by HTTP/1.1 and by HTTP/2, and gets a long body. By HTTP/1.1 it reads nothing before all of its body is
sent, so what it has echoed has to fit into the buffers on the way."""
import asyncio
import sys

import httpx

base, pem = sys.argv[1:]


async def main():
    for http2 in (False, True):
        async with httpx.AsyncClient(http1=not http2, http2=http2, verify=pem, timeout=60) as client:
            body = b"python" * 10_000
            echo = await client.post(base + "/test/echo", content=body)
            print(echo.http_version, echo.status_code, echo.content == body)
            stream = await client.get(base + "/test/stream?bytes=10000000")
            assert len(stream.content) == 10_000_000
            answers = await asyncio.gather(*(client.get(base + "/health") for _ in range(100)))
            assert all(answer.text == "ok\n" for answer in answers)


asyncio.run(main())
