package main

import (
	"context"
	"fmt"
	"net"
)

// reach connects to a unix socket, as what it is: unix (a stream) or unixgram.
func reach(ctx context.Context, network, path string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, path)
	if err != nil {
		return fmt.Errorf("reach: %w", err)
	}
	return conn.Close()
}
