package cli

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// refresh is how often a live view asks the server anew.
const refresh = 150 * time.Millisecond

// follow shows an execution of the pipeline until it ends. Where after is
// not empty it waits for an execution newer than that one.
func follow(ctx context.Context, s *session, scr *screen, name, after string, started time.Time) (*view, error) {
	fails := 0
	for {
		v, err := observe(ctx, s, name)
		switch {
		case ctx.Err() != nil:
			return v, ctx.Err()
		case err != nil:
			// The server may be restarting; the pipeline goes on after that.
			if fails++; fails > 200 {
				return nil, fmt.Errorf("lost the server: %w", err)
			}
		default:
			fails = 0
			if v.Execution != "" && v.Execution != after {
				v.narrate(scr)
				scr.region(v.render(scr, started))
				if v.ended() {
					scr.keep()
					return v, nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(refresh):
		}
	}
}

// errPipelineFailed says that the pipeline ended badly; the screen says why.
var errPipelineFailed = errors.New("the pipeline did not succeed")
