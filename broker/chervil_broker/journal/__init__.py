"""The journal: what the broker knows, on disk. docs/journal-format.md is its format.

layout, records      how files look, byte for byte, and what records say
files                the file system, as much of it as is needed; tests put another in its place
recording, replay    what an engine decided, as records; and back
writer, commit       where records go, and when they are durable; spares and housekeeping are behind them
reader, tail         what is there, whether it is damaged, and the end that a crash tore
opening              all of that, when a broker starts
compaction           what is written again, so that old segments can go
check, dump, backup, repair    for people
"""
