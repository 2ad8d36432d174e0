"""All that speaks to Redis or Valkey.

``keys`` names the keys, ``lua/`` moves messages between them, ``scripts`` loads it, ``commands`` are calls as values,
``connection`` and ``aio`` execute them, ``protocol`` and ``producer`` decide what to repeat, ``pool`` is what the rest
of taskq uses, ``embedded`` starts a server where there is none. Only ``connection``, ``aio`` and ``url`` import redis.
"""
