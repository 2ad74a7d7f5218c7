"""From the node's own values to what the API shows."""

from collections.abc import Iterable, Sequence

from node.api import views
from node.discovery.directory import Listing
from node.storage.jobs import JobRecord
from protocol.capacity import Device, ModelOffer
from protocol.ids import NodeId, node_text


def offer(offered: ModelOffer) -> views.Offer:
    return views.Offer(
        name=offered.name,
        model=offered.model.hex(),
        kind=offered.kind,
        mode=offered.mode,
        context_tokens=offered.context_tokens,
        price_in_microcredits=offered.price_in,
        price_out_microcredits=offered.price_out,
        prefill_millitokens_per_second=offered.prefill_millitokens_per_second,
        decode_millitokens_per_second=offered.decode_millitokens_per_second,
        slots=offered.slots,
        slots_free=offered.slots_free,
    )


def hardware(devices: Sequence[Device]) -> views.Hardware | None:
    processors = [device for device in devices if device.kind == "cpu"]
    if not processors:
        return None
    first = processors[0]
    return views.Hardware(
        cpu=first.name,
        cores=first.cores,
        memory_bytes=first.memory_bytes,
        gpus=tuple(
            views.Gpu(name=device.name, memory_bytes=device.memory_bytes)
            for device in devices
            if device.kind != "cpu"
        ),
    )


def peer(listing: Listing, name: str) -> views.Peer:
    advert = listing.advert
    return views.Peer(
        node=node_text(listing.node),
        name=name,
        connected=listing.connected,
        addresses=advert.addresses,
        hardware=hardware(advert.devices),
        offers=tuple(offer(one) for one in advert.models),
        advert_age_ms=listing.age_ms,
        region=advert.region,
        sharing=advert.sharing,
    )


def peer_without_advert(node: NodeId) -> views.Peer:
    return views.Peer(node=node_text(node), name="", connected=True)


def job(record: JobRecord, peer_name: str) -> views.Job:
    return views.Job(
        job=record.job_id.hex(),
        role=record.role.value,
        peer=node_text(record.peer),
        peer_name=peer_name,
        model=record.model_name or record.model.hex()[:16],
        state=record.state.value,
        started_at_ms=record.started_at_ms,
        code="" if record.code is None else record.code.value,
        input_tokens=record.tokens_in,
        output_tokens=record.tokens_out,
        cost_microcredits=record.cost_microcredits,
        ms_first=record.ms_first or None,
        ms_total=record.ms_total or None,
    )


def known_models(offers: Iterable[ModelOffer]) -> tuple[views.KnownModel, ...]:
    """What the network offers, model by model, in the order of their names."""
    grouped: dict[bytes, list[ModelOffer]] = {}
    for offered in offers:
        grouped.setdefault(offered.model, []).append(offered)
    known = [
        views.KnownModel(
            name=group[0].name,
            model=group[0].model.hex(),
            modes=tuple(sorted({one.mode for one in group})),
            context_tokens=max(one.context_tokens for one in group),
            providers=len(group),
            slots_free=sum(one.slots_free for one in group),
            price_in_microcredits=min(one.price_in for one in group),
            price_out_microcredits=min(one.price_out for one in group),
        )
        for group in grouped.values()
    ]
    return tuple(sorted(known, key=lambda one: (one.name, one.model)))
