"""Celery's names that this release does not have: who types one is told so, not that it may be a typo.

A name leaves its table when the feature comes; tests hold that no table names what is there.
"""

from importlib import _bootstrap
from types import FrameType


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Names of the package `celery`.
PACKAGE = _words(
    "Celery Signature beat bootsteps bugreport canvas chain chord chunks group maybe_signature "
    "maybe_subtask schedules signals signature subtask uuid xmap xstarmap"
)

#: Names of `celery.exceptions`.
EXCEPTIONS = _words(
    "AlreadyRegistered AlwaysEagerIgnored BackendError BackendGetMetaError BackendStoreError "
    "CDeprecationWarning CPendingDeprecationWarning CeleryCommandException CeleryError CeleryWarning "
    "ChordError DuplicateNodenameWarning FixupWarning Ignore IncompleteStream InvalidTaskError "
    "NotConfigured QueueNotFound SecurityError SecurityWarning TaskPredicate WorkerShutdown WorkerTerminate "
    "reraise"
)

#: Options of `apply_async`, `delay_many`, `send_task` and `retry`.
CALL_OPTIONS = _words(
    "add_to_parent chain chord compression connection exchange group_id group_index link link_error "
    "parent_id producer publisher replaced_task_nesting reply_to retry retry_policy root_id route_name "
    "router routing_key shadow stamped_headers user_id"
)

#: Options of `@app.task` and `@shared_task`.
TASK_OPTIONS = _words(
    "abstract acks_on_failure_or_timeout after_return autoretry_for backend base before_start "
    "compression dont_autoretry_for filter lazy on_failure on_retry on_success pydantic pydantic_context "
    "pydantic_dump_kwargs pydantic_strict rate_limit resultrepr_maxsize "
    "retry_backoff retry_backoff_max retry_jitter retry_kwargs send_events shared "
    "store_eager_result store_errors_even_if_ignored throws track_started trail"
)

TASK_ATTRIBUTES = TASK_OPTIONS | _words(
    "add_to_chord add_trail chunks map replace s send_event si signature signature_from_request starmap "
    "subtask subtask_from_request update_state"
)

APP_ATTRIBUTES = _words(
    "Beat GroupResult ResultSet Task WorkController Worker add_defaults add_periodic_task amqp "
    "autodiscover_tasks backend broker_connection bugreport canvas config_from_envvar config_from_object "
    "connection connection_for_read connection_for_write events loader log on_after_configure "
    "on_after_finalize on_after_fork on_configure pool producer_or_acquire producer_pool register_task "
    "select_queues setup_security signature start steps user_options worker_main"
)

CONTROL_ATTRIBUTES = _words(
    "add_consumer autoscale broadcast cancel_consumer disable_events election enable_events heartbeat "
    "inspect mailbox ping pool_grow pool_restart pool_shrink rate_limit revoke_by_stamped_headers shutdown "
    "terminate_by_stamped_headers time_limit"
)

RESULT_ATTRIBUTES = _words(
    "args backend build_graph children collect date_done get_leaf graph ignored iterdeps kwargs "
    "maybe_reraise maybe_throw name parent queue retries revoke_by_stamped_headers then worker"
)

SETTINGS = _words(
    "beat_cron_starting_deadline beat_max_loop_interval beat_schedule beat_schedule_filename beat_scheduler "
    "beat_sync_every broker_channel_error_retry broker_connection_max_retries broker_connection_retry "
    "broker_connection_retry_on_startup broker_failover_strategy broker_heartbeat "
    "broker_heartbeat_checkrate broker_login_method broker_native_delayed_delivery_queue_type "
    "broker_read_url broker_transport broker_transport_options broker_write_url "
    "cache_backend cache_backend_options control_exchange control_queue_expires control_queue_ttl "
    "database_engine_options database_short_lived_sessions database_table_names database_url enable_utc "
    "event_exchange event_queue_expires event_queue_prefix event_queue_ttl event_serializer "
    "redis_backend_use_ssl redis_max_connections redis_socket_timeout result_accept_content "
    "result_backend result_backend_always_retry result_backend_transport_options "
    "result_cache_max result_chord_join_timeout result_chord_retry_interval result_compression "
    "result_exchange result_exchange_type result_extended result_persistent security_cert_store "
    "security_certificate security_digest security_key task_acks_on_failure_or_timeout "
    "task_allow_error_cb_on_chord_header task_annotations task_compression task_create_missing_queues "
    "task_default_delivery_mode task_default_exchange task_default_exchange_type task_default_rate_limit "
    "task_default_routing_key task_inherit_parent_priority task_protocol task_publish_retry "
    "task_publish_retry_policy task_queue_max_priority task_queues "
    "task_remote_tracebacks task_routes task_send_sent_event "
    "task_store_eager_result task_store_errors_even_if_ignored task_track_started "
    "worker_autoscaler worker_cancel_long_running_tasks_on_connection_loss worker_concurrency "
    "worker_consumer worker_deduplicate_successful_tasks worker_direct worker_disable_prefetch "
    "worker_disable_rate_limits worker_enable_prefetch_count_reduction worker_enable_remote_control "
    "worker_enable_soft_shutdown_on_idle worker_hijack_root_logger worker_log_color worker_log_format "
    "worker_lost_wait worker_max_memory_per_child worker_max_tasks_per_child worker_pool "
    "worker_pool_putlocks worker_pool_restarts worker_prefetch_multiplier worker_proc_alive_timeout "
    "worker_redirect_stdouts worker_redirect_stdouts_level worker_send_task_events "
    "worker_soft_shutdown_timeout worker_state_db worker_task_log_format worker_timer "
    "worker_timer_precision"
)


def attribute_error(owner: object, name: str, absent: frozenset[str]) -> AttributeError:
    """What `__getattr__` raises for a name that is not there, in Python's words unless Celery has it."""
    kind = type(owner).__name__
    if name in absent:
        return AttributeError(f"{kind}.{name} is not in this release of Chervil", name=name, obj=owner)
    return AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=owner)


def no_such_name(
    module: str, name: str, absent: frozenset[str], caller: FrameType | None = None
) -> ImportError | AttributeError:
    """What a module's `__getattr__` raises for a name that is not there.

    That is an AttributeError, as `hasattr` and all who look for a name in many modules rely on it. Of that
    `from package import name` shows none of the words. But for a package the import system asks for the name
    first: then it is an ImportError for Celery's names. `caller` is the frame that asks, for a package.
    """
    if name == "Celery":
        words = "the app is made by Chervil here: from chervil import Chervil"
    elif name in absent:
        words = (
            f"{name} is Celery's, and is not in this release of Chervil; "
            "docs/from-celery.md says what to do meanwhile"
        )
    else:
        return AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
    if caller is not None and _imports(caller):
        return ImportError(words, name=module)
    return AttributeError(words, name=name)


def _imports(frame: FrameType) -> bool:
    """Whether this is where the import system looks for the names of `from package import name`."""
    return frame.f_code.co_name == "_handle_fromlist" and frame.f_globals is vars(_bootstrap)
