package guest

import "slipway/internal/machine/sandbox/wire"

// StandIns are the files and links by which an image answers to commands of
// Amazon Linux that the host does not have.
func StandIns() []wire.MaskEntry { return nil }
