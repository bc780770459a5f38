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
/// The event that the guest has put something into the second ring.
const FROM_GUEST: u16 = 1;
/// The event that somebody on the host wrote or read something. The number after the rings is the exit's.
pub(super) const KICK: u16 = 3;
const RING_SIZE: usize = 1024;
/// `VIRTIO_F_VERSION_1`, section 6.
const VERSION_1: u64 = 1 << 32;
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

    /// Takes in all that the guest has sent.
    fn receive_all(&mut self, memory: &Memory, ring: &Ring) -> Result<(), RingError> {
        let mut any = false;
        let memory = memory.memory();
        loop {
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
            any = true;
        }
        if any {
            ring.signal_used_queue()?;
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

    /// Gives the guest all that fits into the buffers that it has laid out.
    fn send_all(&mut self, memory: &Memory, ring: &Ring) -> Result<(), RingError> {
        let mut any = false;
        let memory = memory.memory();
        loop {
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
            any = true;
        }
        if any {
            ring.signal_used_queue()?;
        }
        Ok(())
    }
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
        VERSION_1 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG
    }

    fn set_event_idx(&mut self, _enabled: bool) {
        // Not offered, so it is never enabled.
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
        let mut done = Ok(());
        if event == FROM_GUEST && ready(from_guest) {
            done = self.receive_all(&memory, from_guest);
        }
        if ready(to_guest) {
            done = done.and(self.send_all(&memory, to_guest));
        }
        if let Err(error) = done {
            tracing::warn!(%error, "the guest's vsock rings");
        }
        Ok(())
    }
}
