/** The ports that this computer listens on for containers, live. */
import type { PortForwardStatus } from '../host'

class Ports {
  list = $state.raw<PortForwardStatus[]>([])
}

export const ports = new Ports()
