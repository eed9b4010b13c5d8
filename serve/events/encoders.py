"""Encodes events of a subscription: server-sent events, WebSocket messages."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator

from sqlalchemy.exc import SQLAlchemyError
from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from dragonfly_ray.serve.events.feed import EventFeed
from dragonfly_ray.serve.events.filters import EventFilter
from dragonfly_ray.serve.events.subscription import Gap, Item, Lagged, Opened

log = logging.getLogger(__name__)
AGAIN = 1.0
RETRY_MS = 2000
"""After which a browser connects again."""


async def items(feed: EventFeed, wanted: EventFilter, after: int | None) -> AsyncGenerator[Item]:
    """Until the feed ends. While the database is unavailable there is nothing to tell, and nothing is lost."""
    if after is not None:
        # An id from the future is one of another database: from here on, whatever comes.
        after = min(after, await run_in_threadpool(feed.newest))
    with feed.subscribe(wanted, after) as reader:
        yield Opened(reader.position)
        while True:
            try:
                found = await reader.take()
            except SQLAlchemyError as error:
                log.warning("event stream: database unavailable, retrying: %s", type(error).__name__)
                await asyncio.sleep(AGAIN)
                continue
            if not found:
                return
            for item in found:
                yield item


async def as_sse(found: AsyncGenerator[Item]) -> AsyncGenerator[ServerSentEvent]:
    """News have no event name, so that every client hears all of them; `lagged` and `gap` have."""
    try:
        async for item in found:
            match item:
                case Opened(after):
                    yield ServerSentEvent(comment="open", id=str(after), retry=RETRY_MS)
                case Lagged(after):
                    yield ServerSentEvent(event="lagged", data=json.dumps({"after": after}))
                case Gap(after, until):
                    yield ServerSentEvent(event="gap", data=json.dumps({"after": after, "until": until}))
                case news:
                    yield ServerSentEvent(id=str(news.id), data=news.text)
    finally:
        await found.aclose()


async def as_texts(found: AsyncGenerator[Item]) -> AsyncGenerator[str]:
    """`{"open": {…}}` first, then `{"event": {…}}`, `{"lagged": {…}}` or `{"gap": {…}}`."""
    try:
        async for item in found:
            match item:
                case Opened(after):
                    yield json.dumps({"open": {"after": after}})
                case Lagged(after):
                    yield json.dumps({"lagged": {"after": after}})
                case Gap(after, until):
                    yield json.dumps({"gap": {"after": after, "until": until}})
                case news:
                    yield f'{{"event": {news.text}}}'
    finally:
        await found.aclose()
