"""What `contrib/demo --switch` shows: a phone changes its network in mid-upload, with slotd and
with Prosody's own mod_http_file_share. Needs root, and what the demo has installed and built."""

import asyncio
import os
import signal
import sys
import time

import network
from bed import Bed, Trouble, free_port
from network_client import Phone, PlainUpload, Tally, Upload
from servers import Prosody
from sessions import announced
from xmpp import Client

SIZE = 8 << 20
RATE_MBIT = 20
MARK = SIZE * 6 // 10
UNAWARE_S = 0.3
SHARE = "share.localhost"
BOLD, PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")


def step(words):
    """A heading, as the demo's."""
    print(f"\n{BOLD}{words}{PLAIN}", flush=True)


def say(words):
    """A line below it."""
    print(f"  {words}", flush=True)


class Account:
    """What happened when; times count from the first request."""

    def __init__(self):
        self.began = time.monotonic()

    def tell(self, words):
        """One thing that happened now."""
        say(f"{time.monotonic() - self.began:7.2f} s  {words}")


class Outcome:
    """A row of the table at the end."""

    def __init__(self, name):
        self.name, self.back_s, self.twice, self.took_s, self.same = name, 0.0, 0, 0.0, False


def serve_both(bed):
    """Prosody with slotd's component and with its own upload service."""
    server = Prosody(bed)
    port = free_port()
    text = server.conf.read_text().replace("http_ports = {}", f"""http_ports = {{ {port} }}
http_interfaces = {{ "{network.SERVER}" }}
http_default_host = "{SHARE}"
http_external_url = "http://{network.SERVER}:{port}/\"""")
    server.conf.write_text(text + f"""
Component "{SHARE}" "http_file_share"
\thttp_file_share_size_limit = 100 * 1024 * 1024
""")
    return server


async def lose_wifi(net, account, phone, transfer):
    """The phone's Wi-Fi vanishes in mid-upload, and a moment later the phone uses LTE."""
    await transfer.at_mark()
    net.cut(phone.source)
    account.tell("Wi-Fi vanishes: from now on its packets are lost, and nobody is told")
    await asyncio.sleep(UNAWARE_S)
    await transfer.leave()
    phone.move()
    account.tell(f"{transfer.sent:,} bytes were handed to Wi-Fi; from here on the phone uses LTE "
                 f"({phone.source})")
    return transfer.sent, time.monotonic()


async def back_at(front, position, moved_at):
    """How long it takes until the new network has carried as much as the old one had."""
    while position() < front:
        await asyncio.sleep(0.001)
    return time.monotonic() - moved_at


async def aware(net, client, outcome):
    """A client that knows upload sessions."""
    phone, tally, body = Phone(net), Tally(), os.urandom(SIZE)
    slot, session = await announced(client, "holiday.mp4", SIZE)
    say("The slot has an upload session; its resume URL is an HTTP address of its own.")
    upload, account = Upload(phone, body, slot, session, tally), Account()
    upload.begin(mark=MARK)
    account.tell(f"PUT of {SIZE:,} bytes over Wi-Fi ({phone.source})")
    front, moved_at = await lose_wifi(net, account, phone, upload.transfer)
    await upload.find()
    account.tell(f"HEAD of the resume URL: slotd has {upload.told:,} bytes; asking took "
                 f"{tally.gaps_ms[0]:.0f} ms")
    upload.append()
    account.tell(f"PATCH of the remaining {SIZE - upload.told:,} bytes")
    outcome.back_s = await back_at(front, lambda: upload.front, moved_at)
    answer = await upload.transfer.answer()
    account.tell(f"{answer.status}: the upload is complete")
    await finish(net, outcome, account, tally.twice, upload)


async def plain(net, client, outcome, service):
    """A client that knows XEP-0363 alone."""
    phone, tally, body = Phone(net), Tally(), os.urandom(SIZE)
    slot = await client.slot("holiday.mp4", SIZE, to=service)
    upload, account = PlainUpload(phone, body, slot, tally), Account()
    upload.begin(mark=MARK)
    account.tell(f"PUT of {SIZE:,} bytes over Wi-Fi ({phone.source})")
    front, moved_at = await lose_wifi(net, account, phone, upload.transfer)
    upload.begin()
    account.tell("the same PUT again, from the first byte")
    outcome.back_s = await back_at(front, lambda: upload.transfer.sent, moved_at)
    answer = await upload.transfer.answer()
    account.tell(f"{answer.status}: the upload is complete" if answer.status == 201
                 else f"{answer.status}: refused")
    await finish(net, outcome, account, front, upload)


async def finish(net, outcome, account, twice, upload):
    """What it came to."""
    outcome.took_s, outcome.twice = time.monotonic() - account.began, twice
    outcome.same = await upload.arrived()
    account.tell("downloaded: the same bytes" if outcome.same else "downloaded: OTHER BYTES")
    net.heal(network.address("wifi", 0))


def table(outcomes):
    """All of it side by side."""
    say(f"{'':38} {'sent twice':>11} {'back where it was':>19} {'whole upload':>14}   bytes")
    for outcome in outcomes:
        twice = f"{outcome.twice:,}"
        say(f"{outcome.name:38} {twice:>11} {outcome.back_s:>17.2f} s {outcome.took_s:>12.2f} s   "
            f"{'the same' if outcome.same else 'DIFFER'}")
    say("")
    say("Sent twice: bytes handed to Wi-Fi that had to go over LTE again. Back where it was: from")
    say("the change of network until as many bytes were sent as before it.")


async def show(bed):
    """The account; whether all bytes arrived."""
    server = serve_both(bed)
    with network.Network(rate_mbit=RATE_MBIT) as net:
        server.start()
        server.account("alice")
        slotd = network.slotd_at(bed, server)
        slotd.start()
        client = await Client.login(server, "alice")
        await client.service_up()
        say(f"Prosody and slotd run on one machine ({network.SERVER}); a router leads from there")
        say(f"to Wi-Fi (198.18.1.0/24) and LTE (198.18.2.0/24), {RATE_MBIT} Mbit/s each; the phone")
        say("has an address in both.")
        outcomes = [Outcome("slotd, a client that knows sessions"),
                    Outcome("slotd, any other client"),
                    Outcome("Prosody's http_file_share, any client")]
        step("4. slotd, and a client that knows upload sessions")
        await aware(net, client, outcomes[0])
        step("5. slotd, and a client that knows XEP-0363 alone")
        await plain(net, client, outcomes[1], "upload.localhost")
        step("6. Prosody's own mod_http_file_share, and the same client")
        await plain(net, client, outcomes[2], SHARE)
        step("7. Side by side")
        table(outcomes)
        await client.close()
        slotd.stop()
    return outcomes[0].same and outcomes[1].same


def main():
    """Exit status: 0 if what slotd stored is what was sent."""
    for end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(end, lambda number, _frame: sys.exit(128 + number))
    if why := network.why_not():
        sys.exit(f"contrib/demo: {why}")
    began = time.monotonic()
    step("3. Starting Prosody, slotd, and two networks")
    bed = Bed("demo")
    try:
        arrived = asyncio.run(show(bed))
    except (Trouble, OSError) as trouble:
        bed.show_logs()
        sys.exit(f"contrib/demo: {trouble}")
    finally:
        bed.close()
    print(f"\nDone in {time.monotonic() - began:.0f} s: everything is stopped and removed, the "
          "networks with it.")
    sys.exit(0 if arrived else 1)


if __name__ == "__main__":
    main()
