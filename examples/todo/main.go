// Command todo is a small list of things to do: a REST interface, a page, and a
// health check, made to be built, deployed and watched by a pipeline.
//
// Its settings are environment variables: TODO_ADDR (default 127.0.0.1:5000),
// TODO_DATA (directory of the SQLite file; default /var/lib/todo when that is
// writable, else ./data), DATABASE_URL (postgres://..., instead of SQLite), TODO_LOG
// (a file to append the log to; SIGHUP opens it anew; default standard output),
// TODO_ZONE and TODO_VERSION (instead of what the metadata service and the file
// VERSION say), AWS_EC2_METADATA_DISABLED (true: ask no metadata service).
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// drain is how long requests may go on after SIGTERM; the service unit waits longer.
const drain = 10 * time.Second

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "todo:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	out, err := openLog(os.Getenv("TODO_LOG"))
	if err != nil {
		return err
	}
	defer out.Close()
	log := slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{ReplaceAttr: utcMillis}))
	go out.reopenOn(ctx, syscall.SIGHUP)

	store, err := OpenStore(ctx, os.Getenv("DATABASE_URL"), dataDir())
	if err != nil {
		log.Error("cannot start", slog.Any("error", err))
		return err
	}
	defer store.Close()
	instance := NewInstance()
	if !strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		go instance.FindZone(ctx, cmp.Or(os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"), "http://169.254.169.254"))
	}
	return serve(ctx, cmp.Or(os.Getenv("TODO_ADDR"), "127.0.0.1:5000"), NewServer(store, instance, log))
}

// serve answers requests until ctx ends, and then lets those under way finish.
func serve(ctx context.Context, addr string, s *Server) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	hs := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       120 * time.Second, // longer than nginx keeps its connections: it must be the one to close them
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	s.log.Info("serving", slog.String("address", ln.Addr().String()), slog.String("version", s.instance.Version),
		slog.String("instance", s.instance.Host), slog.String("database", s.store.Engine()))
	ended := make(chan error, 1)
	go func() { ended <- hs.Serve(ln) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	s.Stopping()
	s.log.Info("stopping: requests under way are finished first")
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := hs.Shutdown(late); err != nil {
		return errors.Join(fmt.Errorf("requests were still under way after %s: %w", drain, err), hs.Close())
	}
	s.log.Info("stopped")
	return nil
}

// dataDir is where the SQLite file is. On an instance that is the volume which
// all instances of the group share.
func dataDir() string {
	if d := os.Getenv("TODO_DATA"); d != "" {
		return d
	}
	const shared, writable = "/var/lib/todo", 2
	if syscall.Access(shared, writable) == nil {
		return shared
	}
	return "data"
}

// utcMillis writes times as 2006-01-02T15:04:05.000Z, which log agents understand.
func utcMillis(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		a.Value = slog.StringValue(a.Value.Time().UTC().Format("2006-01-02T15:04:05.000Z"))
	}
	return a
}
