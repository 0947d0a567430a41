"""The server's settings: one frozen object; each default says why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nearcase.processors import decoder_count

MIB = 2**20
MAX_BYTES_IN_FLIGHT = 1024 * MIB
QDRANT_PORT = 6334
"""Where a Qdrant server listens for gRPC."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings; each default says why."""

    data: Path = Path("nearcase-data")
    """Folder of the library; one server at a time."""

    listen: str = "127.0.0.1:50051"
    """Loopback only, until `callers` says who may call from elsewhere; port 0 takes a free one."""

    callers: Path | None = None
    """File (TOML) that says who may call: TLS, tokens, certificates, roles; unset asks nobody. docs/security.md."""

    insecure: bool = False
    """Let others than this machine reach the server although nobody is asked, or nothing is encrypted."""

    health_listen: str = ""
    """A second address that answers grpc.health.v1 and nothing else, without encryption and to everyone: for the probes
    of Kubernetes, which have no certificate; empty is none."""

    metrics_listen: str = ""
    """A third address that shows metrics to everyone, in Prometheus' format by plain HTTP; empty is none."""

    otlp_endpoint: str = ""
    """Where traces go: http(s)://HOST:PORT of a receiver of OTLP over gRPC; empty is none. Needs the extra traces."""

    log_format: str = "text"
    """Lines of the log: "text" for people, "json" for machines."""

    slow_request_ms: float = 10_000.0
    """A request that takes longer has a line in the log, with its stages; 0 logs none."""

    encoder: Path | None = None
    """Folder of the encoder; unset takes the general-purpose default that nearcase ships."""

    runtime: str = "cpu"
    """What runs the encoder: cpu, cuda (onnxruntime on a GPU) or tensorrt (an engine built on this machine)."""

    runtime_fallback: bool = False
    """Run on the CPU where the GPU can not be had, and say so on every surface; off, because a server that is a hundred
    times slower than planned should not start."""

    gpu: int = 0
    """Which GPU, from 0."""

    cuda_graphs: bool = True
    """Record and replay the launches of each batch size: at batch 1 they are most of the time."""

    engines: Path | None = None
    """Folder of TensorRT engines; unset is `engines` in the data folder."""

    index: str = "edge"
    """Where the library lives: "edge", in the data folder, for one server; or "qdrant", on a Qdrant server or cluster,
    which several servers may share."""

    qdrant_url: str = "http://127.0.0.1:6334"
    """The gRPC address of the Qdrant server; https:// for encryption, which any other machine should be given."""

    qdrant_api_key: Path | None = None
    """File with the key of the Qdrant server: a file, so that the key is in no environment and no command line."""

    qdrant_ca: Path | None = None
    """File with the certificates (PEM) that sign the Qdrant server's; unset takes those of the system."""

    qdrant_collection: str = "nearcase"
    """The collection of this library; one for each encoder. Another of this name with _state is kept beside it."""

    qdrant_shards: int = 0
    """Parts of the collection, for good; 0 is 1 on one node, and 12 where there are replicas: 12 divides over 1, 2, 3,
    4, 6 and 12 nodes, and the open server can not cut a collection anew."""

    qdrant_replicas: int = 1
    """Copies of each part, on as many nodes; 2 on three nodes is the least that survives the loss of one."""

    qdrant_write_consistency: int = 0
    """Copies that must have a write before it is acknowledged; 0 is the majority of them, so that no single loss takes
    an acknowledged case. The majority of 2 is both: then nothing can be added while one of them is away."""

    qdrant_quantization: str = "none"
    """Codes that searches read in place of the vectors, which rescore what they find: "int8" takes a quarter of the
    memory, "4bit" an eighth; "none" while the vectors fit into memory. docs/sizing.md has the arithmetic."""

    qdrant_on_disk: bool = False
    """Keep the vectors themselves on the disk; for codes in memory, on an SSD."""

    qdrant_strict: bool = True
    """The server refuses filters on fields without an index, whoever sends them: they are slow, and find too little."""

    qdrant_timeout_s: float = 30.0
    """What a write, a count or a step of the opening may take, with its repetitions. An upgrade that declares a new
    field waits for its index: give a large collection more, or start again until it is there."""

    qdrant_read_timeout_s: float = 5.0
    """What a search or another read may take, with its repetitions: a lost server is told within that."""

    findings: Path | None = None
    """Folder of the findings that can be decided (*.toml, with their fits beside them); unset declares none."""

    records: Path | None = None
    """Folder that keeps a record of every decision; unset is `records` in the data folder."""

    erasures: Path | None = None
    """The ledger of erasures, a file; unset is `erasures.jsonl` in the data folder. On another disk it survives the
    loss of that folder, and what was erased does not come back with an older copy."""

    audit: str = "strict"
    """Whether a record is kept of every call: "strict" lets no answer out before its record is on the disk; with
    "relaxed" searches and other reads do not wait, and a crash may lose the last records of them; "off" keeps none."""

    audit_folder: Path | None = None
    """Folder of the audit trail, of one server; unset is `audit` in the data folder. docs/audit-trail.md."""

    audit_key: Path | None = None
    """File with the secret that seals the audit trail, and makes the names in it; unset makes one beside its folder.
    Elsewhere, who gets the folder can neither change a record unseen nor try who is in it."""

    audit_syslog: str = ""
    """HOST:PORT of a collector that gets the trail as DICOM audit messages, by syslog over TLS; empty is none."""

    audit_syslog_ca: Path | None = None
    """File with the certificates (PEM) that sign the collector's; unset takes those of the system."""

    audit_syslog_certificate: Path | None = None
    """File with our certificate (PEM) for the collector, which mostly asks for one."""

    audit_syslog_key: Path | None = None
    """File with its private key (PEM)."""

    retention_days: float = 0.0
    """Days after which a case is erased, counted from its adding; 0 keeps cases for ever."""

    upload_keep_hours: float = 24.0
    """How long an unfinished upload is kept that nobody goes on with: whose image it is can not be known yet."""

    tenants: str = "none"
    """Whose cases these are: "none" is one owner; with "metadata" each request names its tenant in the gRPC metadata
    `nearcase-tenant`, which a trusted gateway in front must set and clients must not reach past; with "caller" the
    tenant is that of the token or certificate."""

    decode_workers: int = 0
    """Child processes that parse and decode; 0 is one for each core that the server may use, at most 4, since each
    holds memory."""

    decode_wall_s: float = 9.0
    """Wall time one file may take, so that its refusal arrives within 10 s; the slowest honest film (JPEG 2000, 3000 x
    2500) takes under 1 s of CPU."""

    decode_memory_bytes: int = 960 * MIB
    """Memory one file may take in its child, which stays below 1 GiB with its libraries; a 1 MB file was seen to take
    2.1 GB."""

    max_message_bytes: int = 64 * MIB
    """Largest gRPC message; a raw film is 15 MB, a mammogram 25 to 50 MB. Larger files come in chunks."""

    max_image_bytes: int = 512 * MIB
    """Largest file that may come in chunks; tomosynthesis is hundreds of MB."""

    max_waiting: int = 256
    """Images that may wait for the encoder; more are refused with RESOURCE_EXHAUSTED."""

    max_concurrent_requests: int = 256
    """Requests in progress; more are refused with RESOURCE_EXHAUSTED before their handlers start."""

    max_bytes_in_flight: int = MAX_BYTES_IN_FLIGHT
    """Bytes of all requests in progress; more are refused with RESOURCE_EXHAUSTED. Adding waits, and has half of it.
    As many messages as fit in may be slow to arrive, beside them."""

    max_adding_streams: int = 64
    """Streams that add images, which have places of their own, so that they keep no search out."""

    stream_idle_s: float = 300.0
    """An adding stream that sends nothing for so long is ended; its unfinished upload can be resumed. A
    search or decision for a file in chunks is ended after 30 s of silence, or after this where it is less. A
    call of one message is ended where that has not come whole by then."""

    drain_s: float = 10.0
    """Time that requests in progress have to finish after SIGTERM; Kubernetes kills after 30 s by default."""

    recall_check_hours: float = 24.0
    """How often searches are compared with exact ones, besides soon after the start and after a part of the index was
    sealed; 0 never does. A check takes 5 % of the index for some minutes."""

    reflection: bool = False
    """gRPC reflection shows the API to anyone who can connect; off by default."""

    deidentify: bool = False
    """The library keeps pseudonyms, shifted dates and no descriptions; for good, from its first start on."""

    pseudonym_key: Path | None = None
    """File with the secret that makes the pseudonyms; deidentify does not start without it."""

    burned_in: str = "refuse"
    """Images that may hold text, while deidentify is on: "refuse", or "mask" what can be (ultrasound)."""

    trust_plain_images: bool = False
    """While deidentify is on, PNG, JPEG and NIfTI files are refused, as they can not state that they hold no text;
    true is the operator's word that theirs hold none."""

    @property
    def records_folder(self) -> Path:
        """Where the records of decisions are kept."""
        return self.records or self.data / "records"

    @property
    def erasures_file(self) -> Path:
        """Where the ledger of erasures is."""
        return self.erasures or self.data / "erasures.jsonl"

    @property
    def audit_trail_folder(self) -> Path:
        """Where the audit trail is."""
        return self.audit_folder or self.data / "audit"

    @property
    def has_tenants(self) -> bool:
        """Whether each request is one tenant's."""
        return self.tenants != "none"

    @property
    def engines_folder(self) -> Path:
        """Where TensorRT engines are."""
        return self.engines or self.data / "engines"

    @property
    def qdrant_shard_count(self) -> int:
        """Into how many parts a collection is cut."""
        return self.qdrant_shards or (12 if self.qdrant_replicas > 1 else 1)

    @property
    def qdrant_write_consistency_count(self) -> int:
        """How many copies must have a write."""
        return self.qdrant_write_consistency or self.qdrant_replicas // 2 + 1

    @property
    def decode_worker_count(self) -> int:
        """How many decoding processes to start."""
        return self.decode_workers or decoder_count()
