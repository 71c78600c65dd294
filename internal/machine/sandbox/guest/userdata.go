package guest

func (in *Init) runUserData() {}
