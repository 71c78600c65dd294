// Package logs is CloudWatch Logs: groups, streams, and their events.
//
// Groups and streams are rows ("logs:group", id NAME; "logs:stream", id
// GROUP:STREAM, parent GROUP). Events lie outside the store, in one
// segment.Log per group (package segment), because there are many of them;
// PutLogEvents answers when they are synced. A group's directory carries a
// name of its own, made when the group is, so that a group that is deleted
// and created again never sees old events; directories without a row are
// removed at start. A stream's number in the segments is treated alike.
//
// Metrics of events (metric filters, the embedded metric format, AWS/Logs) are
// made behind the acknowledgement, from a durable cursor: see feed.
package logs
