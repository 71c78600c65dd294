// Package stack makes what `slipway up` needs, through the public API alone:
// a network, an image, a group of instances behind a load balancer, and a
// pipeline that builds a repository and deploys it there. Every step looks
// before it makes, so that running it again changes nothing.
package stack

import (
	"context"
	"fmt"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/client"
	"slipway/internal/aws/model"
)

// Config says what to make. Name names every resource.
type Config struct {
	Name    string // 1 to 20 of [a-z0-9-]: AWS cuts names at 32, and suffixes are added
	Account string
	Region  string
	// Branch of the repository that the pipeline follows.
	Branch string
	// HealthCheckPath is what the load balancer asks for; it must answer 200.
	HealthCheckPath string
	// VolumePath is where the instances of the group share a directory that
	// outlives deployments and instances; empty for none.
	VolumePath string
	// InstanceType of the group.
	InstanceType string
	// AlertEmail gets the alarms; "" is the server's own mailbox.
	AlertEmail string
	// SourceDir is the application's directory; its CloudWatch agent
	// configuration says which log group has nginx's errors.
	SourceDir string
	// Push brings the source into the repository; it tells whether anything
	// was new.
	Push func(ctx context.Context, cloneURL string) (pushed bool, err error)
	// Step hears of each step as it is done.
	Step func(what string, made bool)
}

// Resources are the names and ARNs of what was made.
type Resources struct {
	VPC             string
	Subnets         []string
	SecurityGroup   string
	Image           string
	TargetGroupARN  string
	LoadBalancerARN string
	ListenerARN     string
	Bucket          string
	CloneURL        string
	LaunchTemplate  string
	Roles           Roles
	TopicARN        string
}

// Roles are the IAM roles of the stack, by ARN.
type Roles struct{ Instance, Build, Deploy, Pipeline string }

// Stack makes and finds the resources of one Config.
type Stack struct {
	client *client.Client
	cfg    Config
	Resources
}

// New prepares; nothing is made yet.
func New(c *client.Client, cfg Config) *Stack {
	if cfg.Step == nil {
		cfg.Step = func(string, bool) {}
	}
	return &Stack{client: c, cfg: cfg}
}

// step is one thing that is looked for, and made when it is not there.
type step struct {
	what string
	do   func(context.Context) (made bool, err error)
}

// Ensure makes what is missing, in the order in which things need each other.
func (s *Stack) Ensure(ctx context.Context) error {
	for _, st := range []step{
		{"network: the default VPC and its three zones", s.network},
		{"roles and instance profile", s.roles},
		{"security group", s.securityGroup},
		{"bucket for artifacts", s.bucket},
		{"repository", s.repository},
		{"source pushed", func(ctx context.Context) (bool, error) { return s.cfg.Push(ctx, s.CloneURL) }},
		{"load balancer, listener, target group", s.loadBalancer},
		{"image with the agents and nginx", s.image},
		{"launch template", s.launchTemplate},
		{"Auto Scaling group, 2 to 3 instances in 3 zones", s.group},
		{"build project", s.project},
		{"deployment application and group", s.deployment},
		{"alarms, topic and scaling policy", s.watching},
		{"pipeline Source -> Build -> Deploy", s.pipeline},
	} {
		made, err := st.do(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", st.what, err)
		}
		s.cfg.Step(st.what, made)
	}
	return nil
}

// call makes one API call.
func call[I, O any](ctx context.Context, s *Stack, op *model.Op[I, O], in *I) (*O, error) {
	return client.Call(ctx, s.client, op, in)
}

// missing tells whether err says that a resource is not there.
func missing(err error, codes ...string) bool {
	for _, code := range codes {
		if awserr.Is(err, code) {
			return true
		}
	}
	return false
}

// list is a slice of pointers' values, for the lists that AWS wants by value.
func list[T any](v ...T) []T { return v }
