"""The limits of the wire: section 7 of protocol.md, which gives the reason of each."""

PREAUTH_FRAME = 4096
PREAUTH_SECONDS = 10
PREAUTH_FIELDS = 8
PREAUTH_OUT = 1024
FRAME_BATCH = 262_144
BODY_DEFAULT = 1_048_576
BODY_MAX = 16_777_216
ENVELOPE_MAX = 65_536
#: One largest row: a body, its headers and the envelope share the rest.
FRAME_MAX = BODY_MAX + 2 * ENVELOPE_MAX
#: As many as the longest batch can hold, a value taking a byte.
VALUES_MAX = FRAME_BATCH
ROWS_MAX = 8192
ID_MAX = 128
NAME_MAX = 255
OPTIONS_MAX = 64
#: Leaves 4 KiB of the envelope for names, ids and numbers: what was published can be delivered.
OPTIONS_BYTES_MAX = ENVELOPE_MAX - 4096
INVENTORY_MAX = 65_536
REVOKED_IDS_MAX = 50_000
GRACE_CLOSED_MS = 5_000
GRACE_SILENT_MS = 30_000
HEARTBEAT_MS = 10_000
MISSED_HEARTBEATS = 2

HEADERS_MAX = 65_536
INPUTS_MAX = 65_536
TASK_NAMES_MAX = 65_536
QUEUES_MAX = 1024
FEATURES_MAX = 32
CODE_MAX = 64
MESSAGE_MAX = 4096
CODEC_MAX = 32
UINT_MAX = 2**63 - 1
