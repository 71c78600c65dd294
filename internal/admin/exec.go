package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"slipway/internal/machine"
)

// exec runs a program in an instance over a connection of frames. The
// request is JSON; the answer switches protocols.
func (h *Handler) exec(w http.ResponseWriter, r *http.Request) {
	var req ExecRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxFrame)).Decode(&req); err != nil {
		http.Error(w, "the request is not a program to run: "+err.Error(), http.StatusBadRequest)
		return
	}
	if len(req.Args) == 0 {
		http.Error(w, "args: give a program to run", http.StatusBadRequest)
		return
	}
	id := r.PathValue("id")
	if _, err := h.deps.Driver.Status(id); err != nil {
		h.fail(w, err)
		return
	}
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "slipway-exec")
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		h.deps.Log.Error("exec: connection cannot be taken over", "error", err)
		return
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	out := &FrameWriter{W: conn}
	in, resize, signals := h.readFrames(ctx, cancel, buf, req)
	code, err := h.deps.Driver.Exec(ctx, id, machine.ExecSpec{
		Args: req.Args, Env: req.Env, Dir: req.Dir, User: req.User, TTY: req.TTY, Resize: resize, Signals: signals,
		Stdin: in, Stdout: out.Stream(FrameStdout), Stderr: out.Stream(FrameStderr),
	})
	exit := Exit{Code: code}
	if err != nil {
		exit.Error = err.Error()
	}
	if err := out.WriteJSON(FrameExit, exit); err != nil {
		h.deps.Log.Debug("exec: the client went away", "instance", id, "error", err)
	}
}

// readFrames turns the client's frames into what Exec takes, until the
// connection ends, which ends the program.
func (h *Handler) readFrames(ctx context.Context, cancel func(), r io.Reader, req ExecRequest) (io.Reader, <-chan machine.WinSize, <-chan int) {
	in, stdin := io.Pipe()
	resize, signals := make(chan machine.WinSize, 4), make(chan int, 4)
	if req.TTY && req.Rows > 0 {
		resize <- machine.WinSize{Rows: req.Rows, Cols: req.Cols}
	}
	go func() {
		defer cancel()
		defer stdin.Close()
		for {
			kind, payload, err := ReadFrame(r)
			if err != nil {
				return
			}
			switch kind {
			case FrameStdin:
				_, err = stdin.Write(payload)
			case FrameEOF:
				stdin.Close()
			case FrameResize:
				var s Size
				if json.Unmarshal(payload, &s) == nil {
					offer(ctx, resize, machine.WinSize{Rows: s.Rows, Cols: s.Cols})
				}
			case FrameSignal:
				var n int
				if json.Unmarshal(payload, &n) == nil {
					offer(ctx, signals, n)
				}
			}
			if err != nil && !errors.Is(err, io.ErrClosedPipe) {
				return
			}
		}
	}()
	context.AfterFunc(ctx, func() { in.Close() })
	return in, resize, signals
}

func offer[T any](ctx context.Context, c chan<- T, v T) {
	select {
	case c <- v:
	case <-ctx.Done():
	}
}
