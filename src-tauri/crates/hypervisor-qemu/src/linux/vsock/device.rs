//! The vsock device as the guest sees it: two rings of buffers in its memory (virtio 1.2, section 5.10), which QEMU hands
//! over to us by vhost-user. Packets go from the rings into the [`Mux`](super::mux::Mux) and back.

use std::{collections::HashMap, io, sync::Arc};

use caisson_hypervisor::{HostVsockPort, VsockStream};
use tokio::sync::mpsc;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackendMut, VringRwLock, VringT};
use virtio_queue::QueueT;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::{epoll::EventSet, eventfd::EventFd};

use super::{
    mux::Arrival,
    packet::{GUEST_CID, HEADER, Op, Packet},
    stream::{HostEnd, Shared},
};

/// The rings: the first goes to the guest, the second comes from it. (A third, for events, QEMU keeps to itself.)
const RINGS: usize = 2;
/// The event that somebody on the host wrote or read something. The number after the rings is the exit's.
pub(super) const KICK: u16 = 3;
const RING_SIZE: usize = 1024;
/// `VIRTIO_F_VERSION_1`, section 6.
const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_EVENT_IDX`: each side says from which buffer on it wants to be woken. An interrupt costs an emulated guest as much
/// as the packets that it tells of, and a guest that is at work on its ring wants none.
const EVENT_IDX: u64 = 1 << 29;
/// Far more than Linux sends in a packet (64 KiB).
const LONGEST_DATA: usize = 1 << 20;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Ring = VringRwLock<Memory>;

/// The device.
pub(super) struct Device {
    shared: Arc<Shared>,
    listeners: HashMap<u32, mpsc::Sender<(HostVsockPort, VsockStream)>>,
    memory: Option<Memory>,
    kick: EventFd,
    exit: EventFd,
    data: Vec<u8>,
}

impl Device {
    pub(super) fn new(
        shared: Arc<Shared>,
        listeners: HashMap<u32, mpsc::Sender<(HostVsockPort, VsockStream)>>,
        kick: EventFd,
        exit: EventFd,
    ) -> Self {
        Self { shared, listeners, memory: None, kick, exit, data: Vec::new() }
    }

    /// Serves both rings until the guest has nothing more to say, and no room for what there is for it.
    ///
    /// A guest that asks for more than it takes is waited for: what it says stays in its ring until it has made room for the
    /// answers, of which it tells.
    fn serve(&mut self, memory: &Memory, to_guest: &Ring, from_guest: &Ring) -> Result<(), RingError> {
        loop {
            from_guest.disable_notification()?;
            self.receive_some(memory, from_guest)?;
            self.send_some(memory, to_guest)?;
            let more = !self.shared.mux().is_full() && from_guest.enable_notification()?;
            // New room is of interest only while something waits for it.
            let room = self.shared.mux().has_packet() && to_guest.enable_notification()?;
            if !more && !room {
                return Ok(());
            }
        }
    }

    /// Takes in what the guest has sent, at most a whole ring's: a guest that never stops must not keep the host from answering.
    fn receive_some(&mut self, memory: &Memory, ring: &Ring) -> Result<(), RingError> {
        telling(ring, || self.receive_packets(memory, ring))
    }

    fn receive_packets(&mut self, memory: &Memory, ring: &Ring) -> Result<(), RingError> {
        let memory = memory.memory();
        for _ in 0..RING_SIZE {
            if self.shared.mux().is_full() {
                break;
            }
            let chain = ring.get_mut().get_queue_mut().pop_descriptor_chain(memory.clone());
            let Some(chain) = chain else { break };
            let head = chain.head_index();
            let mut reader = chain.reader(&*memory)?;
            if let Some(packet) = read_packet(&mut reader, &mut self.data)? {
                let arrival = self.shared.mux().receive(packet, &self.data);
                if let Some(arrival) = arrival {
                    self.arrived(arrival);
                }
            }
            ring.add_used(head, 0)?;
        }
        Ok(())
    }

    /// Gives a stream of the guest's to whom it wants, or refuses it.
    fn arrived(&self, Arrival { port, stream }: Arrival) {
        let Some(listener) = self.listeners.get(&port) else { return self.shared.mux().refuse(stream) };
        let Ok(place) = listener.try_reserve() else { return self.shared.mux().refuse(stream) };
        self.shared.mux().accept(stream);
        let end = HostEnd { shared: self.shared.clone(), id: stream };
        place.send((HostVsockPort(port), Box::new(end)));
    }

    /// Gives the guest what fits into the buffers that it has laid out, at most a whole ring's: one that takes as fast as it is given is heard
    /// in between.
    fn send_some(&mut self, memory: &Memory, ring: &Ring) -> Result<(), RingError> {
        telling(ring, || self.send_packets(memory, ring))
    }

    fn send_packets(&mut self, memory: &Memory, ring: &Ring) -> Result<(), RingError> {
        let memory = memory.memory();
        for _ in 0..RING_SIZE {
            let mut mux = self.shared.mux();
            if !mux.has_packet() {
                break;
            }
            let chain = ring.get_mut().get_queue_mut().pop_descriptor_chain(memory.clone());
            let Some(chain) = chain else { break };
            let head = chain.head_index();
            let mut writer = chain.writer(&*memory)?;
            let room = writer.available_bytes().saturating_sub(HEADER);
            let Some(packet) = mux.next_packet(room, &mut self.data) else { break };
            drop(mux);
            io::Write::write_all(&mut writer, &packet.to_guest())?;
            io::Write::write_all(&mut writer, &self.data)?;
            ring.add_used(head, HEADER as u32 + packet.len)?;
        }
        Ok(())
    }
}

/// Goes over a ring and tells the guest of what was used of it, also if something that lay behind that makes no sense.
fn telling(ring: &Ring, go_over: impl FnOnce() -> Result<(), RingError>) -> Result<(), RingError> {
    let used = || ring.get_ref().get_queue().next_used();
    let before = used();
    let gone_over = go_over();
    if used() != before && ring.needs_notification()? {
        ring.signal_used_queue()?;
    }
    gone_over
}

/// Why a ring could not be gone on with: the guest laid it out wrongly.
#[derive(Debug, thiserror::Error)]
enum RingError {
    #[error("a ring of the guest's makes no sense")]
    Ring(#[from] virtio_queue::Error),
    #[error("a buffer of the guest's is too short, or it cannot be woken")]
    Io(#[from] io::Error),
}

/// Reads a packet and its data; nothing if it is none that concerns us.
fn read_packet(reader: &mut impl io::Read, data: &mut Vec<u8>) -> io::Result<Option<Packet>> {
    let mut header = [0; HEADER];
    reader.read_exact(&mut header)?;
    let Some(packet) = Packet::from_guest(&header) else { return Ok(None) };
    let size = if packet.op == Op::Data { packet.len as usize } else { 0 };
    if size > LONGEST_DATA {
        return Ok(None);
    }
    data.resize(size, 0);
    reader.read_exact(data)?;
    Ok(Some(packet))
}

impl VhostUserBackendMut for Device {
    type Bitmap = ();
    type Vring = Ring;

    fn num_queues(&self) -> usize {
        RINGS
    }

    fn max_queue_size(&self) -> usize {
        RING_SIZE
    }

    fn features(&self) -> u64 {
        VERSION_1 | EVENT_IDX | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG
    }

    fn set_event_idx(&mut self, _enabled: bool) {
        // The rings know.
    }

    /// The guest's address is all that there is.
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = GUEST_CID.to_le_bytes();
        let end = offset.saturating_add(size) as usize;
        config.get(offset as usize..end).map(<[u8]>::to_vec).unwrap_or_default()
    }

    fn update_memory(&mut self, memory: Memory) -> io::Result<()> {
        self.memory = Some(memory);
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        vec![0b11]
    }

    fn exit_event(&self, _thread: usize) -> Option<EventFd> {
        self.exit.try_clone().ok()
    }

    /// Never fails: an error would end the thread that serves the rings, and the guest could not even be told to power off.
    fn handle_event(&mut self, event: u16, _set: EventSet, rings: &[Ring], _thread: usize) -> io::Result<()> {
        if event == KICK {
            // It only wakes; how often it was written does not matter.
            let _ = self.kick.read();
        }
        let (Some(memory), [to_guest, from_guest, ..]) = (self.memory.clone(), rings) else { return Ok(()) };
        let ready = |ring: &Ring| ring.get_ref().get_queue().ready();
        if !ready(to_guest) || !ready(from_guest) {
            return Ok(());
        }
        // An error has used up what it came from. What lies behind that the guest does not tell of again.
        for _ in 0..RING_SIZE {
            let Err(error) = self.serve(&memory, to_guest, from_guest) else { break };
            tracing::warn!(%error, "the guest's vsock rings");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
