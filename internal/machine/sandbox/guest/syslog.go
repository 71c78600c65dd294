package guest

import (
	"bytes"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// messagesFile is where Amazon Linux keeps what programs log by syslog(3).
const messagesFile = "/var/log/messages"

// serveConsole makes /dev/console what scripts take it for: writing there
// reaches the machine's console. It is a FIFO, because device nodes need more
// than a machine has.
func (in *Init) serveConsole() error {
	const path = "/dev/console"
	if err := unix.Mkfifo(path, 0o622); err != nil {
		return err
	}
	// Open for writing as well: the reader then never sees an end.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	go func() { _, _ = io.Copy(in.console, f) }()
	return nil
}

// serveSyslog takes what programs send to /dev/log, one line each.
func (in *Init) serveSyslog() error {
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/dev/log", Net: "unixgram"})
	if err != nil {
		return err
	}
	if err := os.Chmod("/dev/log", 0o666); err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 64<<10)
		var f *os.File
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			if f = messages(f); f != nil {
				_, _ = f.Write(syslogLine(buf[:n], time.Now()))
			}
		}
	}()
	return nil
}

// messages opens the file at the first line, again when logrotate moved it, and
// turns it over when it is large. A disk that is full loses lines, not the machine.
func messages(f *os.File) *os.File {
	if f != nil {
		there, err := os.Stat(messagesFile)
		ours, err2 := f.Stat()
		if err == nil && err2 == nil && os.SameFile(there, ours) && ours.Size() < logMost {
			return f
		}
		if err == nil && there.Size() >= logMost {
			_ = os.Rename(messagesFile, messagesFile+".1")
		}
		f.Close()
	}
	f, err := os.OpenFile(messagesFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return nil
	}
	return f
}

// syslogLine replaces "<priority>timestamp" of RFC 3164 by a timestamp that
// sorts; a message without them stays whole.
func syslogLine(msg []byte, now time.Time) []byte {
	msg = bytes.TrimRight(msg, "\x00\n ")
	if i := bytes.IndexByte(msg, '>'); i > 1 && i < 5 && msg[0] == '<' {
		msg = msg[i+1:]
		if len(msg) > 16 && msg[3] == ' ' && msg[6] == ' ' && msg[9] == ':' && msg[15] == ' ' {
			msg = msg[16:]
		}
	}
	out := now.UTC().AppendFormat(nil, "2006-01-02T15:04:05.000Z ")
	out = append(out, bytes.ReplaceAll(msg, []byte("\n"), []byte(" "))...)
	return append(out, '\n')
}
