// Package cloudwatch is the agent inside instances that collects log files and host metrics: `slipway agent cloudwatch`,
// and its switch, which answers to the name amazon-cloudwatch-agent-ctl.
//
// It reads the JSON that amazon-cloudwatch-agent reads, and sends through the public API with the credentials of the
// instance's role. (Source of the configuration's form: CloudWatch User Guide, "Manually create or edit the CloudWatch
// agent configuration file".)
//
// # How no line is lost or doubled
//
// The log files themselves are the buffer: a line is read when it is about to be sent, and a file's position moves only
// after the service has acknowledged its lines. So the server's absence costs neither memory nor lines.
//
// Between "the service has stored the batch" and "the position is on disk" lies a crash that would double the batch.
// Therefore an intent is written before every send: which files, from where to where, and one event of the batch as a
// witness, with the number of times that the stream held this event before. Whoever finds an intent, after a restart
// or after an answer that did not arrive, counts the witness in the stream (GetLogEvents at its timestamp) and knows
// whether the batch was stored, for a batch is stored whole or not at all. This holds as long as nobody else writes
// identical events with identical timestamps to the same stream at the same moment.
//
// Files are known by device, inode and a hash of their first bytes, so that a rotated file is read to its end under its
// new name, also after a restart, and a truncated or replaced one from its start.
package cloudwatch
