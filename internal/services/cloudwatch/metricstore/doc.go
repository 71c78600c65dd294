// Package metricstore keeps the points of metrics: durable, bounded in memory,
// and rolled up as they age.
//
// A point is a Set: count, sum, minimum, maximum, and the distribution of the
// values. Sets merge without loss of the first four; the distribution is exact
// while it has few distinct values and within 1 % afterwards. Everything here
// rests on that: a bucket may be written in any number of pieces, and whoever
// reads merges them.
//
//	Put -> log (CRC, one fsync for all that wait) -> head (memory) -> acknowledged
//	head -> blocks (immutable files, one tier and one stretch of time each)
//	many blocks of one stretch -> one block
//	old blocks -> coarser blocks -> gone
//
// The manifest names the blocks and the first log that is still needed; it is
// replaced atomically. A kill -9 at any instant loses nothing acknowledged and
// counts nothing twice: a log is replayed exactly as long as no block of the
// manifest holds its points.
//
// A producer that may repeat itself after a crash puts its points with a
// position (PutAt): both become durable in the same record, and what it repeats
// is recognised.
//
// Start reading at store.go.
package metricstore
