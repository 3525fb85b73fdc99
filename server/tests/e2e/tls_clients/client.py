"""Asks in TLS by HTTP/1.1 and by HTTP/2, and sends and gets a long body."""
import asyncio
import sys

import httpx

base, pem = sys.argv[1:]


async def main():
    for http2 in (False, True):
        async with httpx.AsyncClient(http1=not http2, http2=http2, verify=pem, timeout=60) as client:
            body = b"python" * 500_000
            echo = await client.post(base + "/test/echo", content=body)
            print(echo.http_version, echo.status_code, echo.content == body)
            answers = await asyncio.gather(*(client.get(base + "/health") for _ in range(50)))
            assert all(answer.text == "ok\n" for answer in answers)


asyncio.run(main())
