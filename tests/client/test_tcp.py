import socket

import pytest

from chervil.tcp import RETRY_MS, TCP_RTO_MAX_MS, retry_often


def test_the_kernel_tries_again_every_second_where_it_can():
    with socket.socket() as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, 5_000)
        except OSError:
            pytest.skip("this kernel is older than Linux 6.15")
        retry_often(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS) == RETRY_MS


def test_a_kernel_that_cannot_and_a_unix_socket_are_left_alone():
    class Old:
        family = socket.AF_INET6

        def setsockopt(self, *given):
            assert given == (socket.IPPROTO_TCP, TCP_RTO_MAX_MS, RETRY_MS)
            raise OSError(92, "Protocol not available")

    retry_often(Old())
    with socket.socket(socket.AF_UNIX) as sock:
        retry_often(sock)
