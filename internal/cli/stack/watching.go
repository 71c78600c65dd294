package stack

import "context"

// watching will hold the alarms, the topic and the scaling policy.
func (s *Stack) watching(context.Context) (bool, error) { return false, nil }
