"""The verbs against a real ledger behind the API: sent, certified, exported, verified offline."""

import json

from protocol.ids import node_text
from protocol.ledger.genesis import NetworkFile, network_file_text
from tests.node.app.ledger_home import ALONE, GENESIS_ALONE, opened
from tests.protocol.ledger.chains import BRUNO, CHARTER

TO = node_text(BRUNO.node)


async def shown(command, *arguments):
    done = await command.called(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


async def test_credits_are_sent_and_the_export_holds_without_the_node(command, backend, tmp_path):
    export, genesis = tmp_path / "town.export", tmp_path / "alone.ayni"
    genesis.write_text(network_file_text(NetworkFile(GENESIS_ALONE, ())))
    async with opened(tmp_path, ALONE) as node:
        backend.ledger = node.backend
        async with command.served(backend):
            assert (await shown(command, "wallet", "send", "bruno", "0.00003"))["certified"]
            assert (await shown(command, "wallet"))["balance_microcredits"] == 70
            (line,) = await shown(command, "wallet", "history")
            assert (line["party"]["node"], line["seals"]) == (TO, 1)
            assert (await shown(command, "ledger", "show", "anna"))["seq"] == 1
            assert (await shown(command, "ledger", "verify"))["total_microcredits"] == 140
            assert len(await shown(command, "ledger", "accounts")) == 2
            assert await shown(command, "ledger", "proofs") == []
            await shown(command, "ledger", "export", str(export))
            over = await command.called("wallet", "send", TO, "0.000071")
    assert (over.exit_code, over.stderr.startswith("OVERDRAWN: ")) == (1, True)
    offline = ("ledger", "verify", str(export), "--genesis", str(genesis))
    assert (await shown(command, *offline))["entries"] == 1
    data = bytearray(export.read_bytes())
    data[len(data) // 2] ^= 1
    export.write_bytes(data)
    assert (await command.called(*offline)).exit_code == 1


async def test_what_waits_goes_on_waiting_and_is_told(command, backend, tmp_path):
    async with opened(tmp_path, CHARTER) as node:
        backend.ledger = node.backend
        async with command.served(backend):
            sent = await command.called("wallet", "send", TO, "0.00003", "--no-wait")
            assert (sent.exit_code, "not certified yet" in sent.stdout) == (0, True)
            wallet = (await command.called("wallet")).stdout
    assert "pay of 0.00003 credits to bruno" in wallet
    assert "before 3 of 4 have answered" in wallet
