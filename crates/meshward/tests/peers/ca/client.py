"""A client of Istio's certificate service, made of stock gRPC and nothing of ours.

usage: client.py ADDRESS ROOTS CSR SECONDS [TOKEN [IMPERSONATED]]

Prints the chain that it is given, or `CODE: message` on standard error (exit code 1). The messages of the service are so
small that they are written out by hand here (istio.v1.auth: csr is field 1, validity_duration 3, metadata 4, cert_chain 1).
"""

import sys

import grpc

METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
# The name that Istio's agents verify.
NAME = "istiod.istio-system.svc"


def varint(number):
    number &= (1 << 64) - 1
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def part(field, content):
    return bytes([field << 3 | 2]) + varint(len(content)) + content


def request(csr, seconds, impersonated):
    message = part(1, csr) + b"\x18" + varint(seconds)
    if impersonated:
        # google.protobuf.Struct: a map of names to values, of which a text is field 3.
        entry = part(1, b"ImpersonatedIdentity") + part(2, part(3, impersonated.encode()))
        message += part(4, part(1, entry))
    return message


def texts(message):
    at = 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    found = []
    while at < len(message):
        assert number() == 0x0A, "a field that is no cert_chain"
        length = number()
        found.append(message[at : at + length].decode())
        at += length
    return found


def main(address, roots, csr, seconds, token=None, impersonated=None):
    with open(roots, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    with open(csr, "rb") as file:
        body = request(file.read(), int(seconds), impersonated)
    channel = grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", NAME)])
    metadata = [("authorization", f"Bearer {token}")] if token else []
    try:
        answer = channel.unary_unary(METHOD)(body, metadata=metadata, timeout=10)
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    print("".join(text if text.endswith("\n") else text + "\n" for text in texts(answer)), end="")
    return 0


sys.exit(main(*sys.argv[1:]))
