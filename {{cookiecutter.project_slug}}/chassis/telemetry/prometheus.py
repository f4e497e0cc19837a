"""Metrics that Prometheus fetches, at a port of their own: http://HOST:PORT/metrics.

Nobody is asked for a key there, so the port is for the inside of a network.
"""

from collections.abc import Callable

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server

from chassis.settings import SettingsError
from chassis.telemetry import PORT


def serve(host: str, port: int) -> Callable[[], None]:
    """Serve all metrics of this process, those of `prometheus_client` too, and return what ends it.

    Raises:
        SettingsError: if nothing can listen there.
    """
    provider = metrics.get_meter_provider()
    if not isinstance(provider, MeterProvider):
        provider = MeterProvider()
        metrics.set_meter_provider(provider)
    try:
        server, thread = start_http_server(port, host)
    except OSError as error:
        raise SettingsError(f"{PORT}: nothing can listen on {host}:{port}: {error.strerror}.") from None
    reader = PrometheusMetricReader(scope_info_enabled=False)
    provider.add_metric_reader(reader)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()
        provider.remove_metric_reader(reader)

    return stop
