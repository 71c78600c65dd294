package cli

import (
	"context"
	"fmt"
	"strings"
)

// listener is where a load balancer's listener can be reached on this machine.
type listener struct {
	LoadBalancerARN string `json:"loadBalancerArn"`
	Name            string `json:"name"`
	Port            int    `json:"port"`
	Protocol        string `json:"protocol"`
	Address         string `json:"address"`
	Error           string `json:"error"`
}

func (l listener) url() string { return strings.ToLower(l.Protocol) + "://" + l.Address }

func (s *session) listeners(ctx context.Context) ([]listener, error) {
	var out []listener
	return out, s.admin(ctx, "GET", "listeners", nil, &out)
}

// listenerURL is the address of a load balancer's first listener.
func (s *session) listenerURL(ctx context.Context, arn string) (string, error) {
	ls, err := s.listeners(ctx)
	if err != nil {
		return "", err
	}
	for _, l := range ls {
		if l.LoadBalancerARN == arn {
			if l.Error != "" {
				return "", fmt.Errorf("the load balancer cannot listen on %s: %s", l.Address, l.Error)
			}
			return l.url(), nil
		}
	}
	return "", fmt.Errorf("load balancer %s has no listener", arn)
}
